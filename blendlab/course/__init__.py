"""What only the course needs: the notebooks' runner, their widgets. Read next: widgets/panel.py."""
