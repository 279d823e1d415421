"""HTTP operations on credits: reads, writes, holds, the subscription, auto top-up."""
