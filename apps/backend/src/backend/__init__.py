"""Genesis, the command API of an AI novel-writing product, on the Relaybox backbone."""
