"""From a bundle's folder to a judged version in the catalogue; where torch is, and with no command line in it."""
