//! Hashes and ciphers against the vectors of their standards.

use alloc::format;
use alloc::vec::Vec;

use super::{hex, hex_array};
use crate::aead::{Refused, decrypt, encrypt};
use crate::{Aead, Checksum, Checksummer, MAC_BYTES, MacKey, Sha256, Sha256Digest, checksum, crc32, sha256};

/// FIPS 180-4, examples: the empty message, one block, two blocks, and a million times `a`.
#[test]
fn sha256_gives_the_digests_of_fips_180_4() {
    let check = |message: &[u8], expected: &str| assert_eq!(format!("{}", sha256(message)), expected);
    check(b"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    check(b"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    check(
        b"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
        "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1",
    );
    let mut hasher = Sha256::new();
    for _ in 0..10_000 {
        hasher.update(&[b'a'; 100]);
    }
    assert_eq!(
        format!("{}", hasher.finish()),
        "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"
    );
}

/// The input of every BLAKE3 vector: 0, 1, ..., 250, 0, 1, ...
fn blake3_input(len: usize) -> Vec<u8> {
    (0..=250).cycle().take(len).collect()
}

/// The key of the BLAKE3 vectors.
const BLAKE3_KEY: &[u8; 32] = b"whats the Elvish word for friend";

/// The context string of the BLAKE3 vectors.
const BLAKE3_CONTEXT: &str = "BLAKE3 2019-12-27 16:29:52 test vectors context";

/// From `test_vectors.json` of the BLAKE3 project, the first 32 bytes of each output:
/// input length, hash, keyed hash, derived key.
const BLAKE3_VECTORS: [(usize, &str, &str, &str); 7] = [
    (
        0,
        "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262",
        "92b2b75604ed3c761f9d6f62392c8a9227ad0ea3f09573e783f1498a4ed60d26",
        "2cc39783c223154fea8dfb7c1b1660f2ac2dcbd1c1de8277b0b0dd39b7e50d7d",
    ),
    (
        1,
        "2d3adedff11b61f14c886e35afa036736dcd87a74d27b5c1510225d0f592e213",
        "6d7878dfff2f485635d39013278ae14f1454b8c0a3a2d34bc1ab38228a80c95b",
        "b3e2e340a117a499c6cf2398a19ee0d29cca2bb7404c73063382693bf66cb06c",
    ),
    (
        1023,
        "10108970eeda3eb932baac1428c7a2163b0e924c9a9e25b35bba72b28f70bd11",
        "c951ecdf03288d0fcc96ee3413563d8a6d3589547f2c2fb36d9786470f1b9d6e",
        "74a16c1c3d44368a86e1ca6df64be6a2f64cce8f09220787450722d85725dea5",
    ),
    (
        1024,
        "42214739f095a406f3fc83deb889744ac00df831c10daa55189b5d121c855af7",
        "75c46f6f3d9eb4f55ecaaee480db732e6c2105546f1e675003687c31719c7ba4",
        "7356cd7720d5b66b6d0697eb3177d9f8d73a4a5c5e968896eb6a689684302706",
    ),
    (
        1025,
        "d00278ae47eb27b34faecf67b4fe263f82d5412916c1ffd97c8cb7fb814b8444",
        "357dc55de0c7e382c900fd6e320acc04146be01db6a8ce7210b7189bd664ea69",
        "effaa245f065fbf82ac186839a249707c3bddf6d3fdda22d1b95a3c970379bcb",
    ),
    (
        2049,
        "5f4d72f40d7a5f82b15ca2b2e44b1de3c2ef86c426c95c1af0b6879522563030",
        "9f29700902f7c86e514ddc4df1e3049f258b2472b6dd5267f61bf13983b78dd5",
        "2ea477c5515cc3dd606512ee72bb3e0e758cfae7232826f35fb98ca1bcbdf273",
    ),
    (
        4097,
        "9b4052b38f1c5fc8b1f9ff7ac7b27cd242487b3d890d15c96a1c25b8aa0fb995",
        "00df940cd36bb9fa7cbbc3556744e0dbc8191401afe70520ba292ee3ca80abbc",
        "aca51029626b55fda7117b42a7c211f8c6e9ba4fe5b7a8ca922f34299500ead8",
    ),
];

#[test]
fn checksums_are_the_blake3_vectors_however_the_input_is_cut() {
    for (len, hash, _, _) in BLAKE3_VECTORS {
        let input = blake3_input(len);
        let expected = Checksum::from_bytes(hex_array(hash));
        assert_eq!(checksum(&input), expected, "{len} bytes");
        for cut in [0, 1, len / 2, len] {
            let (head, tail) = input.split_at(cut.min(len));
            let mut checksummer = Checksummer::new();
            checksummer.update(head);
            checksummer.update(tail);
            assert_eq!(checksummer.finish(), expected, "{len} bytes cut at {cut}");
        }
    }
}

#[test]
fn macs_are_the_keyed_blake3_vectors_however_the_message_is_cut() {
    let key = MacKey::from_bytes(BLAKE3_KEY);
    for (len, _, keyed, _) in BLAKE3_VECTORS {
        let input = blake3_input(len);
        let expected: [u8; MAC_BYTES] = hex_array(&keyed[..2 * MAC_BYTES]);
        assert_eq!(key.mac(&[&input]), expected, "{len} bytes");
        let (head, tail) = input.split_at(len / 3);
        assert_eq!(key.mac(&[head, &[], tail]), expected, "{len} bytes in parts");
        assert!(key.verify(&[&input], &expected), "{len} bytes");
    }
}

/// A derived key is BLAKE3's `derive_key` of key ‖ material, so with the first 32 bytes of a vector's
/// input as the key and the rest as the material it must be that vector's output.
#[test]
fn derived_mac_keys_are_the_blake3_derive_key_vectors() {
    let mut checked = 0;
    for (len, _, _, derived) in BLAKE3_VECTORS {
        let input = blake3_input(len);
        let Some((key, material)) = input.split_first_chunk::<32>() else { continue };
        let ours = MacKey::from_bytes(key).derive(BLAKE3_CONTEXT, material);
        let theirs = MacKey::from_bytes(&hex_array(derived));
        assert_eq!(ours.mac(&[b"probe"]), theirs.mac(&[b"probe"]), "{len} bytes");
        checked += 1;
    }
    assert_eq!(checked, 5, "all vectors of at least 32 bytes");
}

#[test]
fn a_mac_is_refused_for_any_flipped_bit_another_key_or_another_direction() {
    let cluster = MacKey::from_bytes(BLAKE3_KEY);
    let forth = cluster.derive("kimberlite test frames", &[1, 2]);
    let back = cluster.derive("kimberlite test frames", &[2, 1]);
    let elsewhere = cluster.derive("kimberlite test other", &[1, 2]);
    let message = b"prepare 7";
    let mac = forth.mac(&[message]);
    assert!(forth.verify(&[message], &mac));
    for bit in 0..8 * MAC_BYTES {
        let mut forged = mac;
        forged[bit / 8] ^= 1 << (bit % 8);
        assert!(!forth.verify(&[message], &forged), "bit {bit}");
    }
    for other in [&cluster, &back, &elsewhere] {
        assert!(!other.verify(&[message], &mac));
    }
    assert!(!forth.verify(&[b"prepare 8"], &mac));
}

/// The check value of CRC-32/ISO-HDLC.
#[test]
fn crc32_gives_its_check_value() {
    assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    assert_eq!(crc32(b""), 0);
}

#[test]
fn digests_print_in_full_or_short_and_serialise_as_their_bytes() {
    let digest = sha256(b"abc");
    assert_eq!(format!("{digest:#}"), "ba7816bf");
    assert_eq!(format!("{digest:?}"), format!("Sha256Digest({digest})"));
    let stored = postcard::to_allocvec(&digest).expect("a digest serialises");
    assert_eq!(stored, digest.as_bytes());
    assert_eq!(postcard::from_bytes::<Sha256Digest>(&stored), Ok(digest));
    assert_eq!(Sha256Digest::default(), Sha256Digest::ZERO);
}

#[test]
fn a_mac_key_does_not_print_its_secret() {
    assert_eq!(format!("{:?}", MacKey::from_bytes(BLAKE3_KEY)), "MacKey(secret)");
}

struct AeadVector<'a> {
    aead: Aead,
    key: &'a str,
    nonce: &'a str,
    associated: &'a str,
    plaintext: &'a str,
    ciphertext: &'a str,
    tag: &'a str,
}

fn check_aead(vector: &AeadVector<'_>) {
    let key = hex_array(vector.key);
    let nonce = hex_array(vector.nonce);
    let associated = hex(vector.associated);
    let plaintext = hex(vector.plaintext);
    let tag = hex_array(vector.tag);

    let mut buffer = plaintext.clone();
    assert_eq!(encrypt(vector.aead, &key, &nonce, &associated, &mut buffer), Ok(tag));
    assert_eq!(buffer, hex(vector.ciphertext));
    assert_eq!(decrypt(vector.aead, &key, &nonce, &associated, &mut buffer, &tag), Ok(()));
    assert_eq!(buffer, plaintext);

    let mut buffer = hex(vector.ciphertext);
    let mut forged = tag;
    forged[15] ^= 1;
    assert_eq!(decrypt(vector.aead, &key, &nonce, &associated, &mut buffer, &forged), Err(Refused));
}

/// Test cases 13 to 16 of McGrew and Viega, "The Galois/Counter Mode of Operation", appendix B, the
/// submission to NIST that became SP 800-38D.
#[test]
fn aes_256_gcm_gives_the_vectors_of_its_specification() {
    const ZERO_KEY: &str = "0000000000000000000000000000000000000000000000000000000000000000";
    const KEY: &str = "feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308";
    check_aead(&AeadVector {
        aead: Aead::Aes256Gcm,
        key: ZERO_KEY,
        nonce: "000000000000000000000000",
        associated: "",
        plaintext: "",
        ciphertext: "",
        tag: "530f8afbc74536b9a963b4f1c4cb738b",
    });
    check_aead(&AeadVector {
        aead: Aead::Aes256Gcm,
        key: ZERO_KEY,
        nonce: "000000000000000000000000",
        associated: "",
        plaintext: "00000000000000000000000000000000",
        ciphertext: "cea7403d4d606b6e074ec5d3baf39d18",
        tag: "d0d1c8a799996bf0265b98b5d48ab919",
    });
    check_aead(&AeadVector {
        aead: Aead::Aes256Gcm,
        key: KEY,
        nonce: "cafebabefacedbaddecaf888",
        associated: "",
        plaintext: "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72
                    1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b391aafd255",
        ciphertext: "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa
                     8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662898015ad",
        tag: "b094dac5d93471bdec1a502270e3cc6c",
    });
    check_aead(&AeadVector {
        aead: Aead::Aes256Gcm,
        key: KEY,
        nonce: "cafebabefacedbaddecaf888",
        associated: "feedfacedeadbeeffeedfacedeadbeefabaddad2",
        plaintext: "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72
                    1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39",
        ciphertext: "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa
                     8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662",
        tag: "76fc6ece0f4e1768cddf8853bb2d551b",
    });
}

/// RFC 8439 §2.8.2.
#[test]
fn chacha20_poly1305_gives_the_vector_of_rfc_8439() {
    check_aead(&AeadVector {
        aead: Aead::ChaCha20Poly1305,
        key: "808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f",
        nonce: "070000004041424344454647",
        associated: "50515253c0c1c2c3c4c5c6c7",
        plaintext: "4c616469657320616e642047656e746c656d656e206f662074686520636c6173
                    73206f66202739393a204966204920636f756c64206f6666657220796f75206f
                    6e6c79206f6e652074697020666f7220746865206675747572652c2073756e73
                    637265656e20776f756c642062652069742e",
        ciphertext: "d31a8d34648e60db7b86afbc53ef7ec2a4aded51296e08fea9e2b5a736ee62d6
                     3dbea45e8ca9671282fafb69da92728b1a71de0a9e060b2905d6a5b67ecd3b36
                     92ddbd7f2d778b8c9803aee328091b58fab324e4fad675945585808b4831d7bc
                     3ff4def08e4b7a9de576d26586cec64b6116",
        tag: "1ae10b594f09e26a7e902ecbd0600691",
    });
}
