#![no_main]

kvs_edge_fuzz::libfuzzer!(tags);
