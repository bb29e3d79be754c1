"""Common corruptions of images (Hendrycks and Dietterich 2019), made or read, and what they do to answers."""
