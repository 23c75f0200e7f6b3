package page

// ExampleURL is a picture that the page can offer to somebody who has none at hand: Config.SuggestedURL.
const ExampleURL = "https://tensorflow.org/images/blogs/serving/cat.jpg"
