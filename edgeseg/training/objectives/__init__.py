"""What training minimizes: losses on labels, and distillation losses against a teacher."""
