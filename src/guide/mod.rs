#![doc = include_str!("links.md")]
#![doc = include_str!("README.md")]

/// Each page is a file that can also be read on a forge, so its links lead to files. In the documentation they must lead to
/// modules. `links.md` defines the same names for modules; it comes first, and the first definition counts. (So rustdoc
/// counts the lines of a snippet from the beginning of `links.md`.)
macro_rules! pages {
    ($($page:ident)*) => {$(
        #[doc = include_str!("links.md")]
        #[doc = include_str!(concat!(stringify!($page), ".md"))]
        pub mod $page {}
    )*};
}

pages! {
    ch1_blocked_thread
    ch2_readiness_completion
    ch3_level_edge_oneshot
    ch4_life
    ch4b_lending
    ch5_closed_descriptor
    ch6_wakeups_threads
    ch7_hints_timeouts
    ch8_confusions
    ch9_four_answers
    ch10_writing
    ch11_connecting
    ch12_listeners
    promises
    experiments
    exercises
    book
    how_we_know
    errata
}
