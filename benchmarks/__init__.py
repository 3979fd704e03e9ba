"""What kmsbridge costs, beside a bare loop over the same cipher and beside two other libraries."""
