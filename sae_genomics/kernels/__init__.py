"""Hand-written fast paths. Each stands beside a plain version of the same name and arguments, in `kernels.plain`.

Domain code imports a kernel from here, so that it reads like the formula. `kernels.choice` says which version runs;
SAE_GENOMICS_PLAIN=1 asks for the plain ones. Modules here import nothing of the package but `errors`, `progress` and `cpu`.
"""
