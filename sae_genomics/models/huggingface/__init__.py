"""Language models of transformers: any AutoModelForCausalLM, from a local folder or the hub."""
