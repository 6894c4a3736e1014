import random, unittest

from .verdict import interval, judge


class Interval(unittest.TestCase):
    def test_fifteen_rounds_take_the_fourth_and_the_twelfth(self):
        self.assertEqual(interval([*range(15, 0, -1)]), (4, 12))

    def test_fewer_than_six_say_nothing(self):
        self.assertEqual(interval([1, 2, 3, 4, 5]), (None, None))
        self.assertEqual(interval([1, 2, 3, 4, 5, 6]), (1, 6))

    def test_it_holds_the_median_at_least_as_often_as_it_says(self):
        chance = random.Random(1)
        for count in (6, 15, 40):
            spans = [interval([chance.expovariate(1) for _ in range(count)]) for _ in range(2000)]
            share = sum(low <= 0.6931 <= high for low, high in spans) / len(spans)
            self.assertGreater(share, 0.94)


class Judge(unittest.TestCase):
    def test_the_line_itself_is_met(self):
        self.assertEqual(judge([0.8] * 15, 0.8).word, "met, certain")

    def test_certain_needs_the_whole_interval(self):
        below = [0.7] * 9 + [0.9] * 6
        self.assertEqual(judge(below, 0.8).word, "met")
        self.assertEqual(judge([1.6 - ratio for ratio in below], 0.8).word, "missed")
        self.assertEqual(judge([0.9] * 15, 0.8).word, "missed, certain")

    def test_few_rounds_are_never_certain(self):
        self.assertEqual(judge([0.1] * 5, 0.8).word, "met")

    def test_no_line_no_judgement(self):
        self.assertEqual(judge([1.0], None).word, "no limit")


if __name__ == "__main__":
    unittest.main()
