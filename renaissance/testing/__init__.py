"""The conformance kit: what every component must hold, checked in the tests of renaissance and of its plugins."""
