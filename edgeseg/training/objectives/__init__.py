"""What training minimizes: losses on labels, and distillation from a teacher."""
