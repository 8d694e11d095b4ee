//! Keys, did:key, the identity trait and device certificates of leno.
