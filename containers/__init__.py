"""Recipes of images and their locks."""
