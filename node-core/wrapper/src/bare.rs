//! The wrapper's own entry on x86-64: it runs without the C library's start-up, which would be a third of its CPU time.
//!
//! glibc asks the processor for its caches and features with some eighty `cpuid` instructions before `main`; in a virtual
//! machine each of them leaves the guest (measured: 75 of 150 microseconds of an empty static program). This program needs
//! none of that. What it does need is set up here: thread-local storage (errno, and what panics count), an allocator, and
//! the memory functions, which in glibc are chosen by processor and so do not work before its start-up.
//!
//! Whatever runs from here may use the kernel and `core` and `alloc`, and of the C library only system calls. If this
//! entry cannot do its work it goes on with the C library's, as if it had not been there.

use std::alloc::{GlobalAlloc, Layout};
use std::arch::{asm, global_asm};
use std::cell::UnsafeCell;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::process::Started;

#[cfg(not(test))]
global_asm!(
    ".globl potluck_start",
    ".type potluck_start,@function",
    "potluck_start:",
    "xor %ebp, %ebp",
    "mov %rsp, %rbx",
    "mov %rsp, %rdi",
    "and $-16, %rsp",
    "call {begin}",
    // It came back: the stack is as the kernel left it, rdx is what the C library's entry expects in it (no destructor).
    "mov %rbx, %rsp",
    "xor %edx, %edx",
    "jmp _start",
    begin = sym begin,
    options(att_syntax)
);
// The test harness is an ordinary program, linked with the same arguments.
#[cfg(test)]
global_asm!(".globl potluck_start", "potluck_start:", "jmp _start");

/// Bytes for thread-local variables; there are some two hundred.
const TLS_BYTES: usize = 4096;
/// Bytes of the C library's own thread block behind them: 2304 in glibc 2.36.
const THREAD_BYTES: usize = 8192;

#[repr(align(64))]
struct Tls(UnsafeCell<[u8; TLS_BYTES + THREAD_BYTES]>);
// SAFETY: only `begin` touches it, before anything else runs.
unsafe impl Sync for Tls {}
static TLS: Tls = Tls(UnsafeCell::new([0; TLS_BYTES + THREAD_BYTES]));

/// Entries of the auxiliary vector (getauxval(3)).
const AT_PHDR: usize = 3;
const AT_PHNUM: usize = 5;
const AT_EXECFN: usize = 31;

/// What the kernel put on the stack: the number of arguments, then them, the environment and the auxiliary vector, each
/// ended by a zero.
///
/// # Safety
/// `stack` is the stack pointer at the program's entry.
#[cfg_attr(test, allow(dead_code))]
unsafe extern "C" fn begin(stack: *const usize) {
    // SAFETY: the kernel's layout of a new stack, as the System V ABI gives it.
    let (argc, argv) = unsafe { (*stack, stack.add(1)) };
    // SAFETY: behind the arguments and their end.
    let envp = unsafe { argv.add(argc + 1) };
    let mut auxv = envp;
    // SAFETY: the environment ends with a zero, behind which the auxiliary vector begins.
    unsafe {
        while *auxv != 0 {
            auxv = auxv.add(1);
        }
        auxv = auxv.add(1);
    }
    let (mut headers, mut count, mut executed) = (0, 0, 0);
    // SAFETY: pairs up to one whose first is zero.
    unsafe {
        while *auxv != 0 {
            match *auxv {
                AT_PHDR => headers = *auxv.add(1),
                AT_PHNUM => count = *auxv.add(1),
                AT_EXECFN => executed = *auxv.add(1),
                _ => {}
            }
            auxv = auxv.add(2);
        }
    }
    // SAFETY: the program's own headers, mapped by the kernel.
    if !unsafe { set_up_tls(headers as *const libc::Elf64_Phdr, count) } {
        return;
    }
    // Written before it is read: a page that is read first is mapped twice.
    NEXT.store(0, Ordering::Relaxed);
    // SAFETY: the kernel's arrays.
    let mut started =
        unsafe { Started::new(argc as c_int, argv.cast::<*const c_char>(), envp.cast::<*const c_char>()) };
    if executed != 0 {
        // SAFETY: a string that the kernel put on the stack, where it stays.
        started.executed = Some(unsafe { CStr::from_ptr(executed as *const c_char) });
    }
    let exit = crate::start(&started);
    // SAFETY: ends the process; nothing of it is needed any more.
    unsafe { asm!("syscall", in("rax") libc::SYS_exit_group, in("rdi") exit as usize, options(noreturn)) };
}

/// Thread-local storage of the first thread as the ABI wants it on x86-64: the variables end where the thread pointer
/// points, and there lies its own address. False: not done.
///
/// # Safety
/// `headers` are `count` program headers of this program, which is not relocated.
unsafe fn set_up_tls(headers: *const libc::Elf64_Phdr, count: usize) -> bool {
    if headers.is_null() {
        return false;
    }
    let thread = TLS.0.get().cast::<u8>().wrapping_add(TLS_BYTES);
    for n in 0..count {
        // SAFETY: below `count`.
        let header = unsafe { &*headers.add(n) };
        if header.p_type != libc::PT_TLS {
            continue;
        }
        let align = (header.p_align as usize).max(1);
        let size = (header.p_memsz as usize).next_multiple_of(align);
        if size > TLS_BYTES || align > 64 {
            return false;
        }
        // SAFETY: the image is in the program, and its place was made large enough. The rest is zero already.
        unsafe { copy(thread.wrapping_sub(size), header.p_vaddr as *const u8, header.p_filesz as usize) };
    }
    // SAFETY: the first word of the thread block.
    unsafe { thread.cast::<*mut u8>().write(thread) };
    const ARCH_SET_FS: usize = 0x1002;
    let mut result = libc::SYS_arch_prctl as usize;
    // SAFETY: sets the thread pointer to a block that lives as long as the process; the kernel clobbers rcx and r11.
    unsafe {
        asm!("syscall", inlateout("rax") result, in("rdi") ARCH_SET_FS, in("rsi") thread, out("rcx") _, out("r11") _, options(nostack));
    }
    result == 0
}

unsafe fn copy(to: *mut u8, from: *const u8, count: usize) {
    // SAFETY: the caller vouches for both ranges; the direction flag is clear by the ABI.
    unsafe {
        asm!("rep movsb", inout("rcx") count => _, inout("rdi") to => _, inout("rsi") from => _, options(nostack, preserves_flags))
    };
}

/// memcpy(3).
///
/// # Safety
/// As there.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memcpy(to: *mut c_void, from: *const c_void, count: usize) -> *mut c_void {
    // SAFETY: the caller's.
    unsafe { copy(to.cast(), from.cast(), count) };
    to
}

/// memmove(3).
///
/// # Safety
/// As there.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memmove(to: *mut c_void, from: *const c_void, count: usize) -> *mut c_void {
    if (to as usize).wrapping_sub(from as usize) >= count {
        // SAFETY: the caller's; a copy from the front reads nothing that it has written.
        unsafe { copy(to.cast(), from.cast(), count) };
    } else {
        let (last_to, last_from) = (to.cast::<u8>().wrapping_add(count - 1), from.cast::<u8>().wrapping_add(count - 1));
        // SAFETY: the same from the back; the direction flag is cleared again.
        unsafe {
            asm!("std", "rep movsb", "cld", inout("rcx") count => _, inout("rdi") last_to => _, inout("rsi") last_from => _, options(nostack))
        };
    }
    to
}

/// memset(3).
///
/// # Safety
/// As there.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memset(to: *mut c_void, byte: c_int, count: usize) -> *mut c_void {
    // SAFETY: the caller vouches for the range.
    unsafe {
        asm!("rep stosb", inout("rcx") count => _, inout("rdi") to => _, in("al") byte as u8, options(nostack, preserves_flags))
    };
    to
}

/// memcmp(3).
///
/// # Safety
/// As there.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memcmp(a: *const c_void, b: *const c_void, count: usize) -> c_int {
    let (a, b) = (a.cast::<u8>(), b.cast::<u8>());
    let mut n = 0;
    while n + 8 <= count {
        // SAFETY: inside both ranges.
        let (x, y) = unsafe { (a.add(n).cast::<u64>().read_unaligned(), b.add(n).cast::<u64>().read_unaligned()) };
        if x != y {
            return if x.swap_bytes() < y.swap_bytes() { -1 } else { 1 };
        }
        n += 8;
    }
    while n < count {
        // SAFETY: inside both ranges.
        let (x, y) = unsafe { (*a.add(n), *b.add(n)) };
        if x != y {
            return c_int::from(x) - c_int::from(y);
        }
        n += 1;
    }
    0
}

/// bcmp(3).
///
/// # Safety
/// As there.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bcmp(a: *const c_void, b: *const c_void, count: usize) -> c_int {
    // SAFETY: the caller's.
    unsafe { memcmp(a, b, count) }
}

/// strlen(3).
///
/// # Safety
/// As there.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn strlen(text: *const c_char) -> usize {
    let mut n = 0;
    // SAFETY: up to the zero that the caller vouches for; volatile, or the loop would be made a call of strlen.
    while unsafe { text.add(n).read_volatile() } != 0 {
        n += 1;
    }
    n
}

/// Memory is taken from one piece and given back with the process, which lives for one question. What is at the end
/// may grow in place: most of what is built here grows.
pub struct Bump;

/// Enough for every ordinary command; a page is only there once it is touched.
const ARENA_BYTES: usize = 1 << 20;

#[repr(align(64))]
struct Arena(UnsafeCell<[u8; ARENA_BYTES]>);
// SAFETY: pieces are handed out once each, by `NEXT`.
unsafe impl Sync for Arena {}
static ARENA: Arena = Arena(UnsafeCell::new([0; ARENA_BYTES]));
static NEXT: AtomicUsize = AtomicUsize::new(0);

impl Bump {
    fn base() -> *mut u8 {
        ARENA.0.get().cast()
    }
}

// SAFETY: every piece is inside the arena or a mapping of its own, aligned, and handed out once. One thread.
unsafe impl GlobalAlloc for Bump {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let at = NEXT.load(Ordering::Relaxed).next_multiple_of(layout.align().min(64));
        if layout.align() <= 64 && layout.size() <= ARENA_BYTES - at.min(ARENA_BYTES) {
            NEXT.store(at + layout.size(), Ordering::Relaxed);
            return Self::base().wrapping_add(at);
        }
        let flags = rustix::mm::MapFlags::PRIVATE;
        let access = rustix::mm::ProtFlags::READ | rustix::mm::ProtFlags::WRITE;
        // SAFETY: a new anonymous mapping at no chosen place; pages are aligned to more than anything asks for.
        unsafe { rustix::mm::mmap_anonymous(std::ptr::null_mut(), layout.size(), access, flags) }
            .map_or(std::ptr::null_mut(), <*mut c_void>::cast)
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        let at = (place as usize).wrapping_sub(Self::base() as usize);
        if at < ARENA_BYTES && at + layout.size() == NEXT.load(Ordering::Relaxed) {
            NEXT.store(at, Ordering::Relaxed);
        }
    }

    unsafe fn realloc(&self, place: *mut u8, layout: Layout, new: usize) -> *mut u8 {
        let at = (place as usize).wrapping_sub(Self::base() as usize);
        let is_last = at < ARENA_BYTES && at + layout.size() == NEXT.load(Ordering::Relaxed);
        if is_last && new <= ARENA_BYTES - at {
            NEXT.store(at + new, Ordering::Relaxed);
            return place;
        }
        if new <= layout.size() {
            return place;
        }
        // SAFETY: the alignment is the old one's, and a size that overflows it was refused by the caller.
        let moved = unsafe { self.alloc(Layout::from_size_align_unchecked(new, layout.align())) };
        if !moved.is_null() {
            // SAFETY: both are at least as long, and apart.
            unsafe { copy(moved, place, layout.size()) };
        }
        moved
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_functions_do_what_their_manuals_say() {
        let mut bytes: Vec<u8> = (0..=255).collect();
        let at = |bytes: &mut Vec<u8>, n: usize| bytes.as_mut_ptr().wrapping_add(n).cast::<c_void>();
        // SAFETY: all ranges are inside `bytes`.
        unsafe {
            memmove(at(&mut bytes, 3), at(&mut bytes, 0), 200);
            assert_eq!((bytes[2], bytes[3], bytes[202], bytes[203]), (2, 0, 199, 203));
            memmove(at(&mut bytes, 0), at(&mut bytes, 3), 200);
            assert_eq!((bytes[0], bytes[199], bytes[200]), (0, 199, 197));
            memset(at(&mut bytes, 10), 7, 5);
            assert_eq!(bytes[9..16], [9, 7, 7, 7, 7, 7, 15]);
            for (a, b) in [(&b"abcdefgh1"[..], &b"abcdefgh2"[..]), (b"b\xff......", b"c\x00......"), (b"x", b"x")] {
                let got = memcmp(a.as_ptr().cast(), b.as_ptr().cast(), a.len());
                assert_eq!(got.signum(), a.cmp(b) as c_int);
                assert_eq!(bcmp(a.as_ptr().cast(), b.as_ptr().cast(), a.len()) == 0, a == b);
            }
            assert_eq!(strlen(c"four".as_ptr()), 4);
        }
    }

    #[test]
    fn the_arena_grows_in_place_and_large_pieces_are_mapped() {
        let layout = |n| Layout::from_size_align(n, 8).unwrap();
        // SAFETY: pieces are used within their sizes and not after they were given back.
        unsafe {
            let first = Bump.alloc(layout(10));
            let grown = Bump.realloc(first, layout(10), 100);
            assert_eq!(first, grown);
            let second = Bump.alloc(layout(10));
            assert!(second >= grown.add(100) && (second as usize).is_multiple_of(8));
            grown.write_bytes(5, 100);
            let moved = Bump.realloc(grown, layout(100), 300);
            assert!(moved != grown && *moved.add(99) == 5);
            let large = Bump.alloc(layout(ARENA_BYTES * 2));
            large.add(ARENA_BYTES * 2 - 1).write(1);
            let last = Bump.alloc(layout(64));
            Bump.dealloc(last, layout(64));
            assert_eq!(Bump.alloc(layout(64)), last);
        }
    }
}
