"""The Bellman recursion on arrays, Eq. 2-5 of Liu, Chen & Theodorou (ICLR 2021), and its parts."""
