//! Sealing and wrapping: what opens, what does not, and what never varies.

use alloc::format;
use alloc::string::ToString;
use alloc::vec;
use alloc::vec::Vec;

use proptest::prelude::*;

use crate::key::TENANT_CONTEXT_BYTES_MAX;
use crate::seal::{SEALED_BYTES_MAX, SYNTHETIC_NONCE_BYTES};
use crate::{
    Aead, Cipher, Context, MasterKey, OpenError, SealHeader, Sealed, SealingKey, UnknownCipher, UnwrapError,
    aead,
};

const BOTH: [Aead; 2] = [Aead::Aes256Gcm, Aead::ChaCha20Poly1305];
const PLAINTEXT: &[u8] = b"patient 17: penicillin allergy";

fn key(aead: Aead) -> SealingKey {
    SealingKey::new(aead, 3, &[0x5e; 32])
}

/// Formats are pinned: if this fails, stored data can no longer be opened.
#[test]
fn sealed_bytes_are_as_they_were_when_the_format_was_fixed() {
    let expected = [
        (Aead::Aes256Gcm, "25c9e161676ee0d2603fc9fc60efca8c544043d4f714910cc715ccd7b7dd6032"),
        (Aead::ChaCha20Poly1305, "975aef6cebb1bde98b69514a306d2b794771d2a52937e4cb31219670115b1b15"),
    ];
    for (aead, pinned) in expected {
        let sealed = key(aead).seal(&Context::entry(b"position"), PLAINTEXT);
        let stored = postcard::to_allocvec(&sealed).expect("a sealing serialises");
        assert_eq!(crate::sha256(&stored).to_string(), pinned, "{aead:?}");
        assert_eq!(postcard::from_bytes(&stored), Ok(sealed));
    }
}

/// The drawing in the module's documentation, computed step by step.
#[test]
fn the_construction_is_the_documented_one() {
    let (data_key, position) = ([0x5e; 32], b"position");
    let nonce_subkey = blake3::derive_key("kimberlite seal v1: synthetic nonce subkey", &data_key);
    let cipher_subkey = blake3::derive_key("kimberlite seal v1: one-time cipher subkey", &data_key);
    for aead in BOTH {
        let mut place = vec![u8::from(aead), 3, 0, 0, 0, 2, 8, 0, 0, 0, 0, 0, 0, 0];
        place.extend_from_slice(position);
        let nonce = blake3::keyed_hash(&nonce_subkey, &[&place, PLAINTEXT].concat());
        let nonce = &nonce.as_bytes()[..SYNTHETIC_NONCE_BYTES];
        let one_time_key = blake3::keyed_hash(&cipher_subkey, &[&place, nonce].concat());
        let mut ciphertext = PLAINTEXT.to_vec();
        let tag = aead::encrypt(aead, one_time_key.as_bytes(), &[0; 12], &[], &mut ciphertext);

        let sealed = key(aead).seal(&Context::page(position), PLAINTEXT);
        assert_eq!(sealed.header.nonce, nonce);
        assert_eq!(Ok(sealed.header.tag), tag);
        assert_eq!(sealed.ciphertext, ciphertext);
    }
}

#[test]
fn a_sealing_opens_in_its_own_context_with_its_own_key_only() {
    for aead in BOTH {
        let key = key(aead);
        let context = Context::entry(b"tenant 1, session 2, request 3");
        let sealed = key.seal(&context, PLAINTEXT);
        assert_eq!(key.open(&context, &sealed).expect("it is ours").as_slice(), PLAINTEXT);

        for elsewhere in [
            Context::entry(b"tenant 2"),
            Context::entry(b""),
            Context::page(b"tenant 1, session 2, request 3"),
        ] {
            assert_eq!(key.open(&elsewhere, &sealed), Err(OpenError::NotAuthentic));
        }
        let stranger = SealingKey::new(aead, 3, &[0x5f; 32]);
        assert_eq!(stranger.open(&context, &sealed), Err(OpenError::NotAuthentic));
        let later = SealingKey::new(aead, 4, &[0x5e; 32]);
        assert_eq!(later.open(&context, &sealed), Err(OpenError::WrongEpoch { key: 4, sealed: 3 }));
    }
}

#[test]
fn a_key_opens_what_it_sealed_with_the_other_cipher() {
    let context = Context::entry(b"position");
    let sealed = key(Aead::Aes256Gcm).seal(&context, PLAINTEXT);
    let opened = key(Aead::ChaCha20Poly1305).open(&context, &sealed).expect("the cipher is in the header");
    assert_eq!(opened.as_slice(), PLAINTEXT);
}

#[test]
fn position_and_plaintext_cannot_trade_bytes() {
    let key = key(Aead::Aes256Gcm);
    let one = key.seal(&Context::entry(b"ab"), b"c");
    let other = key.seal(&Context::entry(b"a"), b"bc");
    assert_ne!(one.header.nonce, other.header.nonce);
}

#[test]
fn bytes_that_a_key_holder_made_differently_do_not_open() {
    for aead in BOTH {
        let key = key(aead);
        let context = Context::entry(b"position");
        // A nonce of one's own choice, and all else as it should be: the tag is right.
        let nonce = [9; SYNTHETIC_NONCE_BYTES];
        let one_time_key = key.one_time_key(aead, &context, &nonce);
        let mut buffer = PLAINTEXT.to_vec();
        let tag = aead::encrypt(aead, one_time_key.as_bytes(), &[0; 12], &[], &mut buffer).expect("short");
        let header = SealHeader { cipher: aead.into(), key_epoch: 3, nonce, tag };
        assert_eq!(key.open_in_place(&context, &header, &mut buffer), Err(OpenError::NotAuthentic));
        assert_eq!(buffer, vec![0; PLAINTEXT.len()], "the plaintext is wiped");
    }
}

#[test]
fn bytes_that_are_not_sealed_or_too_long_are_refused() {
    let key = key(Aead::Aes256Gcm);
    let context = Context::entry(b"position");
    assert_eq!(key.open_in_place(&context, &SealHeader::NONE, &mut [1, 2, 3]), Err(OpenError::NotSealed));
    let header = key.seal(&context, b"").header;
    let mut long = vec![0; SEALED_BYTES_MAX + 1];
    assert_eq!(key.open_in_place(&context, &header, &mut long), Err(OpenError::TooLong));
}

#[test]
fn a_cipher_is_the_number_in_the_header() {
    for (number, cipher) in [(0, Cipher::None), (1, Cipher::Aes256Gcm), (2, Cipher::ChaCha20Poly1305)] {
        assert_eq!(Cipher::from_u8(number), Ok(cipher));
        assert_eq!(cipher.to_u8(), number);
        assert_eq!(postcard::to_allocvec(&cipher), Ok(vec![number]));
        assert_eq!(cipher.aead().map_or(Cipher::None, Cipher::from), cipher);
    }
    for number in 3..=u8::MAX {
        assert_eq!(Cipher::from_u8(number), Err(UnknownCipher(number)));
        assert!(postcard::from_bytes::<Cipher>(&[number]).is_err());
    }
    assert_eq!(Aead::try_from(0), Err(UnknownCipher(0)), "none does not encrypt");
}

#[test]
fn keys_do_not_print_their_secrets() {
    assert_eq!(format!("{:?}", key(Aead::Aes256Gcm)), "SealingKey(secret of epoch 3, Aes256Gcm)");
    assert_eq!(format!("{:?}", MasterKey::from_bytes(&[1; 32])), "MasterKey(secret)");
}

#[test]
fn a_wrapped_key_unwraps_for_its_tenant_under_its_master_only() {
    let master = MasterKey::from_bytes(&[1; 32]);
    for aead in BOTH {
        let key = key(aead);
        let wrapped = master.wrap(b"tenant 1", &key);
        assert_eq!(wrapped, master.wrap(b"tenant 1", &key), "wrapping is deterministic");
        assert_ne!(&wrapped.secret, key.data_key());

        let unwrapped = master.unwrap(b"tenant 1", &wrapped).expect("it is ours");
        assert_eq!((unwrapped.aead(), unwrapped.epoch()), (aead, 3));
        let context = Context::entry(b"position");
        assert_eq!(unwrapped.seal(&context, PLAINTEXT), key.seal(&context, PLAINTEXT));

        let refused = |master: &MasterKey, tenant: &[u8], wrapped| {
            assert_eq!(master.unwrap(tenant, &wrapped).err(), Some(UnwrapError::NotAuthentic));
        };
        refused(&master, b"tenant 2", wrapped.clone());
        refused(&MasterKey::from_bytes(&[2; 32]), b"tenant 1", wrapped.clone());
        let other_aead = if aead == BOTH[0] { BOTH[1] } else { BOTH[0] };
        refused(&master, b"tenant 1", crate::WrappedKey { aead: other_aead, ..wrapped.clone() });
        refused(&master, b"tenant 1", crate::WrappedKey { key_epoch: 4, ..wrapped.clone() });
    }
}

#[test]
fn any_flipped_bit_of_a_wrapped_key_is_noticed() {
    let master = MasterKey::from_bytes(&[1; 32]);
    let wrapped = master.wrap(b"tenant 1", &key(Aead::Aes256Gcm));
    for bit in 0..8 * 32 {
        let mut forged = wrapped.clone();
        forged.secret[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(master.unwrap(b"tenant 1", &forged).err(), Some(UnwrapError::NotAuthentic));
    }
    for bit in 0..8 * SYNTHETIC_NONCE_BYTES {
        let mut forged = wrapped.clone();
        forged.nonce[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(master.unwrap(b"tenant 1", &forged).err(), Some(UnwrapError::NotAuthentic));
    }
    for bit in 0..8 * 16 {
        let mut forged = wrapped.clone();
        forged.tag[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(master.unwrap(b"tenant 1", &forged).err(), Some(UnwrapError::NotAuthentic));
    }
}

#[test]
fn a_tenant_context_has_a_limit() {
    let master = MasterKey::from_bytes(&[1; 32]);
    let longest = [7; TENANT_CONTEXT_BYTES_MAX];
    let wrapped = master.wrap(&longest, &key(Aead::Aes256Gcm));
    assert!(master.unwrap(&longest, &wrapped).is_ok());
    let longer = [7; TENANT_CONTEXT_BYTES_MAX + 1];
    assert_eq!(master.unwrap(&longer, &wrapped).err(), Some(UnwrapError::ContextTooLong));
}

fn any_aead() -> impl Strategy<Value = Aead> {
    prop::sample::select(&BOTH[..])
}

fn bytes(max: usize) -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..max)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(128) })]

    #[test]
    fn what_is_sealed_opens_again_and_is_the_same_each_time(
        aead in any_aead(), epoch: u32, secret: [u8; 32], position in bytes(40), plaintext in bytes(3000),
    ) {
        let key = SealingKey::new(aead, epoch, &secret);
        let context = Context::entry(&position);
        let sealed = key.seal(&context, &plaintext);
        prop_assert_eq!(sealed.ciphertext.len(), plaintext.len());
        prop_assert_eq!(&SealingKey::new(aead, epoch, &secret).seal(&context, &plaintext), &sealed);

        let mut buffer = plaintext.clone();
        let header = key.seal_in_place(&context, &mut buffer);
        prop_assert_eq!(&Sealed { header, ciphertext: buffer.clone() }, &sealed);
        prop_assert_eq!(key.open_in_place(&context, &header, &mut buffer), Ok(()));
        prop_assert_eq!(&buffer, &plaintext);
        let opened = key.open(&context, &sealed).map(|opened| opened.to_vec());
        prop_assert_eq!(opened, Ok(plaintext));
    }

    #[test]
    fn any_flipped_bit_of_a_sealing_is_noticed(
        aead in any_aead(), plaintext in bytes(300), bit: prop::sample::Index,
    ) {
        let key = key(aead);
        let context = Context::entry(b"position");
        let sealed = key.seal(&context, &plaintext);
        let flip = |bytes: &mut [u8]| {
            let at = bit.index(8 * bytes.len());
            bytes[at / 8] ^= 1 << (at % 8);
        };
        let mut forgeries = vec![sealed.clone(), sealed.clone()];
        flip(&mut forgeries[0].header.nonce);
        flip(&mut forgeries[1].header.tag);
        if !plaintext.is_empty() {
            let mut forged = sealed.clone();
            flip(&mut forged.ciphertext);
            forgeries.push(forged);
        }
        let mut longer = sealed.clone();
        longer.ciphertext.push(0);
        forgeries.push(longer);
        for forged in forgeries {
            prop_assert_eq!(key.open(&context, &forged), Err(OpenError::NotAuthentic));
        }
    }

    #[test]
    fn another_place_or_another_plaintext_gives_other_bytes(
        aead in any_aead(), one in bytes(20), other in bytes(20), text in bytes(100), changed in bytes(100),
    ) {
        let key = key(aead);
        let sealed = key.seal(&Context::entry(&one), &text);
        if one != other {
            prop_assert_ne!(&key.seal(&Context::entry(&other), &text).header, &sealed.header);
        }
        if text != changed {
            let second = key.seal(&Context::entry(&one), &changed);
            prop_assert_ne!(second.header.nonce, sealed.header.nonce);
            // The one-time keys differ, so the two ciphertexts share no key stream.
            let context = Context::entry(&one);
            let first_key = key.one_time_key(aead, &context, &sealed.header.nonce);
            let second_key = key.one_time_key(aead, &context, &second.header.nonce);
            prop_assert_ne!(first_key.as_bytes(), second_key.as_bytes());
        }
        prop_assert_ne!(key.seal(&Context::page(&one), &text).header, sealed.header);
    }
}
