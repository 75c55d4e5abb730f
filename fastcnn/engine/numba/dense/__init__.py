"""The fully connected layer and its gradients."""
