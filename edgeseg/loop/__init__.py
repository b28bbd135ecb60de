"""One turn of the loop: collected frames are labeled, the model is trained with them, and replaced if it got better."""
