"""Is a bus as it should be? What `trunkline doctor` looks at, and what each durability promises."""
