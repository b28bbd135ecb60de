"""edgeseg: image segmentation from labelled frames to a camera on an edge device."""
