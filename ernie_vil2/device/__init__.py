"""What the machine is and what it needs: processors, ranks, environment, the check-up."""
