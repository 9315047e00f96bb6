"""The aggregated API subresources.kubevirt.io."""
