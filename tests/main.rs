//! System tests.

mod demo;
