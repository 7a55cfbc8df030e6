//! Which box belongs to which track: the pairs with the largest sum of gains.
