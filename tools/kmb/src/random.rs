//! Luck from the operating system: the only place where this program gets any.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use zeroize::Zeroizing;

use crate::Failure;

/// `N` unpredictable bytes, wiped when dropped.
pub(crate) fn bytes<const N: usize>() -> Result<Zeroizing<[u8; N]>, Failure> {
    let source = Path::new("/dev/urandom");
    let mut bytes = Zeroizing::new([0; N]);
    File::open(source)
        .and_then(|mut file| file.read_exact(bytes.as_mut_slice()))
        .map_err(|error| Failure::on(source, &error))?;
    Ok(bytes)
}

/// An unpredictable number.
pub(crate) fn number() -> Result<u64, Failure> {
    Ok(u64::from_le_bytes(*bytes::<8>()?))
}
