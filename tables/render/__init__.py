"""From claims and results to tables: one comparison, several writers.

`compare.compare` joins a table's claims with `compare.Results` into a `Comparison` of `Cell`s. The writers (`markdown`,
`latex`, `csv`, `html`, `confusion`, `summary`) turn it into text and decide nothing. What each of them has to keep to:

* a synthetic result never stands beside a paper's number without the word SYNTHETIC and "not comparable";
* a shortened recipe, a protocol that is not the paper's, and missing seeds are visible in the cell itself;
* nothing is printed bold: `≈` marks own rows that a paired test cannot tell from the best one of their column.
"""
