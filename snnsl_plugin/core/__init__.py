"""The method in pure torch: tensors and numbers in, tensors and numbers out."""
