//! Reading a stream: the chunks of an answer.

pub mod chunk;
