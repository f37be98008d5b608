//! Fills Kubernetes volumes from archives in object storage, without a pod.
