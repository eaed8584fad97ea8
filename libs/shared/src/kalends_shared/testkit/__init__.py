"""What tests of every package share. `kalends_shared.testkit.plugin` has the fixtures and says how to use them."""
