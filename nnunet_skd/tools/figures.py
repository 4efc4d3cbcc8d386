"""How the figures look: colours, width, letters."""

# Okabe and Ito's palette: told apart by every kind of colour vision and, mostly, in grey.
ORANGE, SKY, GREEN, YELLOW, BLUE, VERMILION, PURPLE, GREY = (
    "#E69F00 #56B4E9 #009E73 #F0E442 #0072B2 #D55E00 #CC79A7 #999999".split()
)
PAPER_WIDTH = 7.0  # inches: two columns of a journal page
STYLE = {"font.size": 8, "text.parse_math": False}  # names of the user's may hold a $
