//! Starts real Kubernetes, S3 and CSI components, and proves the product on them.
