#![no_main]

kvs_edge_fuzz::libfuzzer!(sps_h265);
