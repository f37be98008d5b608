//! The Container Storage Interface 1.13 protocol, and sockets to speak it over.
