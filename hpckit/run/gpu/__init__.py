"""One card for one task: bound, compiled for, fed and timed, on PyCUDA.

wish       what tasks want
card       what a job sees as `run.gpu` or `task.gpu`
between    what is done about cards between tasks
claims     which card it is, and that no one else has it
devices    which cards there are
driver     PyCUDA, imported late, and what its errors mean
compiler   nvcc: cubins, its errors, what a kernel needs of the card
cubins     where cubins are kept, so that they are made once
shipping   cubins for cards that are elsewhere
signature  the types of a kernel's parameters
kernel     launches
memory     arrays on the card, pinned ones on the host
reduction  sums
blas       matrix products by the vendor's library
streaming  arrays that are larger than the card
halo       what ranks send each other from card to card
ledger     where the time went
ceilings   how fast the card could have been
"""
