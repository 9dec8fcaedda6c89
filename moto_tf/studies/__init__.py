"""What critics and penalty of a trained agent are worth.

critics    predicted values against the returns of real episodes
penalty    disagreement on and off the data, and the model's real error
training   disagreement, penalty and success over training
figures    one for each of them
common     what they share
"""
