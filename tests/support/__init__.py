"""What tests share: the cluster as a person sees it, and machines with their guests."""
