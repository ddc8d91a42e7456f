"""What coordinator and devices both know of differential privacy: what noise costs, how it is drawn, and how a device adds its own."""
