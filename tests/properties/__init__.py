"""The universal statements of the library, each as a property of random problems."""
