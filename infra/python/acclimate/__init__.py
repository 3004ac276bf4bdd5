"""Keeps the classifiers of a sensor fleet accurate while sensors age, move and change hands, and proves what it did."""
