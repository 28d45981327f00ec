"""Genesis, an AI novel-writing product, and Workspace, chess studies, on the Relaybox backbone."""
