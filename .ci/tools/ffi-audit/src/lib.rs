//! What the comparison is made of. Only `core` is built for the targets, so `core` also stands in for `std`.
#![no_std]
#![feature(const_type_name)]
#![allow(warnings)]

extern crate self as std;
pub use core::*;

/// The declarations that ours are compared with.
#[cfg(all(probe, unix))]
mod theirs {
    pub use libc::*;
}

#[cfg(all(probe, windows))]
mod theirs {
    pub use windows_sys::{
        Wdk::System::IO::*, Win32::Foundation::*, Win32::Networking::WinSock::*,
        Win32::System::IO::*, Win32::System::Threading::*,
    };
}

/// The numbers that the generated `probe.rs` keeps in statics, from where they reach the compiler's output.
#[cfg(probe)]
mod probes {
    use core::{any::type_name, mem::size_of, ptr};

    /// The size of a type, and how its name begins: "i32", "usize", "*mut cor".
    pub const fn describe<T>() -> [u64; 2] {
        [
            size_of::<T>() as u64,
            first_bytes(type_name::<T>().as_ptr(), type_name::<T>().len()),
        ]
    }

    pub const fn describe_field<T, F>(_: fn(*const T) -> *const F) -> [u64; 2] {
        describe::<F>()
    }

    pub const fn value<T: Copy>(value: T) -> [[u64; 2]; 2] {
        assert!(size_of::<T>() <= 8);
        [
            [first_bytes((&raw const value).cast(), size_of::<T>()), 0],
            describe::<T>(),
        ]
    }

    const fn first_bytes(from: *const u8, length: usize) -> u64 {
        let mut bytes = [0; 8];
        let count = if length < 8 { length } else { 8 };
        // SAFETY: the callers pass memory of this length, and `bytes` has room for eight.
        unsafe { ptr::copy_nonoverlapping(from, bytes.as_mut_ptr(), count) };
        u64::from_le_bytes(bytes)
    }
}

#[cfg(probe)]
mod probe;

pub mod ours;
