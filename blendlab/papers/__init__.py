"""One module for each method, each after its paper; none imports another paper's. Next:
blended_latent.py.
"""
