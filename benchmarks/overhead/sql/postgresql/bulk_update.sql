UPDATE batch SET amount = amount + 1, updated_at = now();
