"""Train one network with finished models as its teacher."""
