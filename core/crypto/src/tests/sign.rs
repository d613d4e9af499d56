//! Ed25519 against RFC 8032 §7.1, and what strict verification refuses.

use alloc::format;
use alloc::vec::Vec;

use proptest::prelude::*;

use super::{hex, hex_array};
use crate::{Signature, SignatureError, SigningKey, VerifyingKey};

fn check_vector(seed: &str, public: &str, message: &str, signature: &str) {
    let key = SigningKey::from_seed(&hex_array(seed));
    let message = hex(message);
    let expected = Signature::from_bytes(hex_array(signature));
    assert_eq!(format!("{}", key.verifying_key()), public);
    assert_eq!(key.sign(&message), expected);
    assert_eq!(key.verifying_key().verify(&message, &expected), Ok(()));
}

#[test]
fn signatures_are_those_of_rfc_8032() {
    check_vector(
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46b
         d25bf5f0595bbe24655141438e7a100b",
    );
    check_vector(
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c
         387b2eaeb4302aeeb00d291612bb0c00",
    );
    check_vector(
        "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc659
         4a7c15e9716ed28dc027beceea1ec40a",
    );
}

/// The fifth vector, "TEST SHA(abc)": its message is the SHA-512 digest of `abc`.
#[test]
fn the_signature_of_a_digest_is_that_of_rfc_8032() {
    check_vector(
        "833fe62409237b9d62ec77587520911e9a759cec1d19755b7da901b96dca3d42",
        "ec172b93ad5e563bf4932c70e1245034c35467ef2efd4d64ebf819683467e2bf",
        "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a2192992a274fc1a836ba3c23a3feebbd
         454d4423643ce80e2a9ac94fa54ca49f",
        "dc2a4459e7369633a52b1bf277839a00201009a3efbf3ecb69bea2186c26b58909351fc9ac90b3ecfdfbc7c66431e030
         3dca179c138ac17ad9bef1177331a704",
    );
}

#[test]
fn keys_that_prove_nothing_are_refused() {
    // The neutral point and the point of order two: anyone can sign under them.
    let neutral = hex_array("0100000000000000000000000000000000000000000000000000000000000000");
    let order_two = hex_array("ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f");
    for weak in [neutral, order_two] {
        assert_eq!(VerifyingKey::from_bytes(&weak), Err(SignatureError::KeyWeak));
    }
    // No point of the curve has this y.
    let off_curve = hex_array("0200000000000000000000000000000000000000000000000000000000000000");
    assert_eq!(VerifyingKey::from_bytes(&off_curve), Err(SignatureError::KeyMalformed));
    assert!(postcard::from_bytes::<VerifyingKey>(&neutral).is_err());
}

/// Its owner can make such a signature, and verifiers that do not look at R accept it: the equation
/// holds, with S = k·a for R the neutral point. Computed from the key of the second vector.
#[test]
fn a_signature_whose_r_is_of_small_order_is_refused() {
    let public = VerifyingKey::from_bytes(&hex_array(
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
    ))
    .expect("the key is sound");
    let signature = Signature::from_bytes(hex_array(
        "0100000000000000000000000000000000000000000000000000000000000000
         675d054595fa17cb6a44e3ada6ca385e55667e41a63fdab0ac22d10000354002",
    ));
    let lax = ed25519_dalek::VerifyingKey::from_bytes(public.as_bytes()).expect("the key is sound");
    let plain = ed25519_dalek::Signature::from_bytes(signature.as_bytes());
    assert!(ed25519_dalek::Verifier::verify(&lax, b"r", &plain).is_ok(), "the equation holds");
    assert_eq!(public.verify(b"r", &signature), Err(SignatureError::Mismatch));
}

#[test]
fn keys_and_signatures_serialise_as_their_bytes() {
    let key = SigningKey::from_seed(&[7; 32]);
    let signature = key.sign(b"message");
    let stored = postcard::to_allocvec(&signature).expect("a signature serialises");
    assert_eq!(stored, signature.as_bytes());
    assert_eq!(postcard::from_bytes(&stored), Ok(signature));
    let stored = postcard::to_allocvec(&key.verifying_key()).expect("a key serialises");
    assert_eq!(stored, key.verifying_key().as_bytes());
    assert_eq!(postcard::from_bytes(&stored), Ok(key.verifying_key()));
}

#[test]
fn a_signing_key_prints_its_public_half_only() {
    let key = SigningKey::from_seed(&[0xab; 32]);
    let printed = format!("{key:?}");
    assert_eq!(printed, format!("SigningKey(secret of VerifyingKey({}))", key.verifying_key()));
    assert!(!printed.contains("abababab"));
}

#[test]
fn bytes_of_another_length_are_no_signature() {
    for len in [0, 32, 63, 65] {
        let bytes: Vec<u8> = core::iter::repeat_n(1, len).collect();
        assert_eq!(Signature::try_from(&bytes[..]), Err(SignatureError::Length));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]

    #[test]
    fn a_signature_verifies_and_any_flipped_bit_of_it_or_its_message_does_not(
        seed: [u8; 32],
        message in prop::collection::vec(any::<u8>(), 1..200),
        bit: prop::sample::Index,
    ) {
        let key = SigningKey::from_seed(&seed);
        let public = key.verifying_key();
        let signature = key.sign(&message);
        prop_assert_eq!(public.verify(&message, &signature), Ok(()));

        let mut forged = *signature.as_bytes();
        let at = bit.index(8 * forged.len());
        forged[at / 8] ^= 1 << (at % 8);
        let verdict = public.verify(&message, &Signature::from_bytes(forged));
        prop_assert_eq!(verdict, Err(SignatureError::Mismatch));

        let mut altered = message.clone();
        let at = bit.index(8 * altered.len());
        altered[at / 8] ^= 1 << (at % 8);
        prop_assert_eq!(public.verify(&altered, &signature), Err(SignatureError::Mismatch));
    }
}
