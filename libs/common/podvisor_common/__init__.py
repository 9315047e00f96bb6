"""What podvisor's services share. Its base (rpc, obs, aio) is light enough for a launcher; the rest needs the extra `cluster`."""
