"""The same functions as the layers write down, faster: products, attention, experts, norm."""
